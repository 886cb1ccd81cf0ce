"""The managed node ``d2_frontend``: images in, refined feature tracks out."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from d2_ros.errors import D2RosError
from d2_ros.node.calibration import Calibration
from d2_ros.node.camera_pipeline import CameraPipeline
from d2_ros.node.device import SharedDevice, give_memory_back
from d2_ros.node.diagnostics import camera_status, make_array, node_status
from d2_ros.node.executor import make_executor, run_node
from d2_ros.node.inputs import GROUP, Inputs
from d2_ros.node.loops import Loops
from d2_ros.node.mailbox import Mailbox, Worker
from d2_ros.node.multi_camera import Entry, MultiCameraPipeline, output_of, stereo_pair
from d2_ros.node.outputs import Outputs
from d2_ros.node.parameters import declare, updated
from d2_ros.node.status import CameraStatus

DIAGNOSTICS_PERIOD = 1.0

STOP_PATIENCE = 1.0
"""Seconds that leaving the active state waits for the frame at hand; its result is dropped."""


class FrontEndNode(LifecycleNode):
    """Owns the cameras' pipelines and moves them through the lifecycle.

    The executor's thread only hands images over; one worker thread processes them.

    Raises
    ------
    D2RosError
        If a parameter given on the command line or in a file is unknown or invalid.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("d2_frontend", **kwargs)
        try:
            self.config = declare(self)
        except D2RosError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._pipelines: dict[str, CameraPipeline] = {}
        self._inputs: Inputs | None = None
        self._worker: Worker[Any] | None = None
        self._retired: list[Worker[Any]] = []
        self._one_frame_at_a_time = Lock()
        self._device: SharedDevice | None = None
        self._state = "unconfigured"
        self._last_error = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/save_places", partial(self._on_places, Loops.save))
        self.create_service(Trigger, "~/load_places", partial(self._on_places, Loops.load))
        # Wall time: with use_sim_time the node's own clock stands still until a bag plays.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD, self.publish_diagnostics, clock=steady)
        if self.config.autostart:
            self._autostart = self.create_timer(0.0, self._start_by_itself, clock=steady)

    def _start_by_itself(self) -> None:
        self._autostart.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the weights and advertise the outputs."""
        return self._attempt("configure", self._configure, self._drop_pipelines)

    def _configure(self) -> None:
        self._device = SharedDevice(self.config, self.get_logger())
        for camera in self.config.cameras:
            status = CameraStatus(camera)
            loops = Loops(self, camera, self.config, status) if self.config.places.enabled else None
            self._pipelines[camera] = CameraPipeline(
                camera,
                self._device.add_frontend(self.config),
                self._device,
                Outputs(self, camera, *output_of(camera, self.config)),
                Calibration(self.config.input.rectified),
                status,
                self.get_logger(),
                lambda: self.get_clock().now().nanoseconds,
                loops,
            )
        self._state = "inactive"
        device = self._device.name
        remedy = "" if device != "cpu" else " (no GPU in use: expect a few seconds per frame)"
        self.get_logger().info(
            f"{self.config.weights} weights on {device}{remedy}, "
            f"cameras: {', '.join(self.config.cameras)}"
        )

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and start the worker."""
        result = super().on_activate(state)
        if result != TransitionCallbackReturn.SUCCESS:
            return result
        return self._attempt("activate", self._activate, lambda: self.on_deactivate(state))

    def _activate(self) -> None:
        assert self._device is not None
        mailbox: Mailbox[Any] = Mailbox()
        pipelines = dict(self._pipelines)
        multi_camera = MultiCameraPipeline(
            pipelines, self._device, stereo_pair(self.config), self.get_logger()
        )

        def handle(cameras: str, entries: dict[str, Entry]) -> None:
            # After a deactivation that did not wait to the end two workers may overlap.
            with self._one_frame_at_a_time:
                multi_camera.handle(entries, lambda: mailbox.closed)

        numbered = self.config.executor == "single"
        self._inputs = Inputs(self, pipelines, mailbox, self.config.input, numbered)
        self._worker = Worker(mailbox, handle, self._inputs.on_slot_free)
        self._state = "active"
        self.get_logger().info(f"active, {self.config.input.qos}: {', '.join(self._inputs.topics)}")

    def _attempt(
        self, transition: str, action: Callable[[], None], undo: Callable[[], Any]
    ) -> TransitionCallbackReturn:
        """Do a transition, or say why not and leave the node as it was."""
        try:
            action()
        except Exception as error:  # rclpy itself would say nothing of it
            known = isinstance(error, D2RosError)
            self._last_error = str(error) if known else repr(error)
            trace = "" if known else f"\n{traceback.format_exc()}"
            self.get_logger().error(f"cannot {transition}: {self._last_error}{trace}")
            undo()
            return TransitionCallbackReturn.FAILURE
        self._last_error = ""
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and drop the work in flight."""
        self._stop()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the network's memory and the publishers back."""
        self._drop_pipelines()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop from whatever state the node is in."""
        self._stop()
        self._drop_pipelines()
        self._state = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up after a transition that failed, back to unconfigured."""
        self._stop()
        self._drop_pipelines()
        self._state = "unconfigured"
        return TransitionCallbackReturn.SUCCESS

    def _stop(self) -> None:
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._worker is not None:
            for slot in self._worker.stop(STOP_PATIENCE):
                for camera in self._pipelines if slot == GROUP else [slot]:
                    self._pipelines[camera].status.count("stopped")
            self._retired = [w for w in (*self._retired, self._worker) if w.alive]
            self._worker = None

    def _drop_pipelines(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.outputs.destroy()
            if pipeline.loops is not None:
                pipeline.loops.destroy()
        self._pipelines.clear()
        if self._device is not None:
            self._device.workers.close()
        self._device = None
        give_memory_back()

    def _on_set_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.config = updated(self.config, changes)
        except D2RosError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for pipeline in self._pipelines.values():
            pipeline.ask_config(self.config)
        return SetParametersResult(successful=True)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        for pipeline in self._pipelines.values():
            pipeline.ask_reset()
        response.success = bool(self._pipelines)
        response.message = (
            "the keyframe window is dropped before the next frame; track ids go on"
            if self._pipelines
            else "the node is not configured; there is no window to drop"
        )
        return response

    def _on_places(
        self,
        action: Callable[[Loops], str],
        request: Trigger.Request,
        response: Trigger.Response,
    ) -> Trigger.Response:
        """Save or load the places of every camera; the first that cannot be ends it."""
        loops = [pipeline.loops for pipeline in self._pipelines.values() if pipeline.loops]
        try:
            response.message = "; ".join(action(each) for each in loops)
        except (D2RosError, OSError) as error:
            response.message = str(error)
            return response
        response.success = bool(loops)
        if not loops:
            response.message = "there are no places; configure the node with places.enabled"
        return response

    def publish_diagnostics(self) -> None:
        """Send the state of the node and of every camera."""
        header = Header(stamp=self.get_clock().now().to_msg())
        node = node_status(self._state, self._device, self.config.weights, self._last_error)
        cameras = [camera_status(pipeline.status) for pipeline in self._pipelines.values()]
        self._diagnostics.publish(make_array(header, [node, *cameras]))

    def close(self) -> None:
        """Stop the worker and give everything back, whatever the state."""
        self._stop()
        for worker in self._retired:
            worker.join()  # Python must not end while a thread of it is in torch
        self._drop_pipelines()
        self.destroy_node()


def _make() -> tuple[FrontEndNode, Executor]:
    node = FrontEndNode()
    return node, make_executor(node.config)


def main(args: list[str] | None = None) -> int:
    """Run the node; the exit code is 2 where a parameter or an argument is refused."""
    return run_node("d2_frontend", _make, args)


if __name__ == "__main__":
    sys.exit(main())
