"""Start d2_frontend for a camera or a stereo pair, and if asked d2_mapper and RViz."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
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
    "image_topic": ("camera/image_raw", "Images of the camera; the left one of a pair."),
    "camera_info_topic": ("camera/camera_info", "Its calibration."),
    "stereo": ("false", "There is a right camera as well: topic stereo, and metres for a mapper."),
    "right_image_topic": ("right/image_raw", "Images of the right camera."),
    "right_camera_info_topic": ("right/camera_info", "Its calibration."),
    "loops": ("false", "Know places again: topics loops and loop_pose, by which a mapper goes."),
    "sync_tolerance": ("0.003", "Most seconds between the stamps of a stereo pair."),
    "mapper": ("false", "Also start d2_mapper; mapper.launch.py's arguments are taken as well."),
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
    topics = {"camera": ("image_topic", "camera_info_topic")}
    if value["loops"].lower() == "true":
        given["places.enabled"] = True
    if value["stereo"].lower() == "true":
        topics["right"] = ("right_image_topic", "right_camera_info_topic")
        given |= {"cameras": [*topics], "input.stereo": True}
        given["input.sync_tolerance"] = float(value["sync_tolerance"])
    remappings = []
    for camera, (images, calibration) in topics.items():
        remappings += [
            (f"{camera}/image_raw", value[images]),
            (f"{camera}/image_raw/compressed", value[images] + "/compressed"),
            (f"{camera}/camera_info", value[calibration]),
        ]
    node = Node(
        package="d2_ros",
        executable="d2_frontend",
        name="d2_frontend",
        namespace=value["namespace"],
        parameters=[value["params_file"], given],
        remappings=remappings,
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
    mapper = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([SHARE, "launch", "mapper.launch.py"])),
        launch_arguments={"frontend": "false"}.items(),
        condition=IfCondition(LaunchConfiguration("mapper")),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "frontend.rviz"])],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*declared, OpaqueFunction(function=start_node), mapper, rviz])
