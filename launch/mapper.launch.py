"""Start d2_mapper, and with it d2_frontend unless that runs elsewhere."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("d2_ros")

ARGUMENTS = {
    "namespace": ("", "Namespace of the nodes and of the camera's topics."),
    "mapper_params_file": (
        PathJoinSubstitution([SHARE, "config", "mapper.yaml"]),
        "Parameter file; every parameter is in config/mapper.yaml.",
    ),
    "image_topic": ("camera/image_raw", "Images of the camera."),
    "camera_info_topic": ("camera/camera_info", "Calibration of the camera."),
    "frontend": ("true", "Also start d2_frontend; its own arguments are taken as well."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def start_node(context):
    """Return the mapper."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    node = Node(
        package="d2_ros",
        executable="d2_mapper",
        name="d2_mapper",
        namespace=value["namespace"],
        parameters=[
            value["mapper_params_file"],
            {"use_sim_time": value["use_sim_time"].lower() == "true"},
        ],
        remappings=[("camera/camera_info", value["camera_info_topic"])],
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
    shared = ("namespace", "image_topic", "camera_info_topic", "use_sim_time", "log_level")
    frontend = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, "launch", "frontend.launch.py"])
        ),
        launch_arguments={name: LaunchConfiguration(name) for name in shared}.items(),
        condition=IfCondition(LaunchConfiguration("frontend")),
    )
    return LaunchDescription([*declared, OpaqueFunction(function=start_node), frontend])
