"""Start d2_frontend, and RViz if asked."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("d2_ros")

ARGUMENTS = {
    "namespace": ("", "Namespace of the node and of the camera's topics."),
    "params_file": (
        PathJoinSubstitution([SHARE, "config", "frontend.yaml"]),
        "Parameter file; every parameter is in config/frontend.yaml.",
    ),
    "image_topic": ("camera/image_raw", "Images of the camera."),
    "camera_info_topic": ("camera/camera_info", "Calibration of the camera."),
    "weights": ("", "Name or path of the weights; empty: as in the parameter file."),
    "device": ("", "auto, cpu or cuda; empty: as in the parameter file."),
    "qos": ("", "live or replay (parameter input.qos); empty: as in the parameter file."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "rviz": ("false", "Also start RViz."),
    "autostart": ("true", "Configure and activate the node; false leaves that to a manager."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def start_node(context):
    """Return the node; arguments that are not empty win over the parameter file."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    given = {name: value[name] for name in ("weights", "device") if value[name]}
    if value["qos"]:
        given["input.qos"] = value["qos"]
    given |= {name: value[name].lower() == "true" for name in ("use_sim_time", "autostart")}
    node = Node(
        package="d2_ros",
        executable="d2_frontend",
        name="d2_frontend",
        namespace=value["namespace"],
        parameters=[value["params_file"], given],
        remappings=[
            ("camera/image_raw", value["image_topic"]),
            ("camera/image_raw/compressed", value["image_topic"] + "/compressed"),
            ("camera/camera_info", value["camera_info_topic"]),
        ],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        output="screen",
        emulate_tty=True,
    )
    return [node]


def generate_launch_description():
    """Declare the arguments and start what they ask for."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in ARGUMENTS.items()
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "frontend.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*declared, OpaqueFunction(function=start_node), rviz])
