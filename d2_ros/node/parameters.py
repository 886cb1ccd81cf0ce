"""The parameters of :mod:`d2_ros.config` as ROS parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from d2_ros.config import Config, Parameter, check_config, parameters, renamed, with_values


def describe(parameter: Parameter) -> ParameterDescriptor:
    """Return the ROS descriptor of `parameter`."""
    unit = f" [{parameter.unit}]" if parameter.unit else ""
    descriptor = ParameterDescriptor(
        description=parameter.description + unit,
        additional_constraints=parameter.range_text if parameter.choices else "",
        read_only=not parameter.live,
    )
    if parameter.low is not None and parameter.high is not None:
        if isinstance(parameter.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(parameter.low), to_value=int(parameter.high))
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=parameter.low, to_value=parameter.high)
            ]
    return descriptor


def declare(node: Node) -> Config:
    """Declare every parameter on `node`, with the values given on its command line.

    A value under an old name is taken under its new one, and the node's log warns of it.

    Raises
    ------
    D2RosError
        If a given name is unknown or a value has the wrong type or is out of range. rclpy
        alone would ignore unknown names and refuse an integer where a float is expected.
    """
    config = with_values(Config(), renamed(overrides(node), node.get_logger().warning))
    check_config(config)
    declare_all(node, config)
    return config


def declare_all(node: Node, config: Any) -> None:
    """Declare every parameter of a configuration that is made of parameters, at its values."""
    for parameter in parameters(config):
        value: Any = parameter.default
        if isinstance(value, tuple):
            value = list(value)
        node.declare_parameter(parameter.name, value, describe(parameter), ignore_override=True)


def overrides(node: Node) -> dict[str, Any]:
    """Return the given parameters that are not rclpy's own (use_sim_time, qos_overrides...)."""
    # rclpy has no public way to ask for the parameters that were given but not declared.
    given: dict[str, RosParameter] = node._parameter_overrides
    return {
        name: parameter.value
        for name, parameter in given.items()
        if not node.has_parameter(name) and not name.startswith("qos_overrides.")
    }


def updated(config: Config, changes: Iterable[RosParameter]) -> Config:
    """Return `config` after `changes`; parameters of rclpy itself are passed over.

    Raises
    ------
    D2RosError
        If a value has the wrong type or is out of range.
    """
    known = {parameter.name for parameter in parameters()}
    return with_values(config, {c.name: c.value for c in changes if c.name in known})
