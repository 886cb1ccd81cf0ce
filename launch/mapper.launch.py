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
    "camera_info_topic": ("camera/camera_info", "Calibration of the camera, the left one's."),
    "stereo": ("false", "There is a right camera as well: in metres."),
    "right_camera_info_topic": ("right/camera_info", "Calibration of the right camera."),
    "loops": ("false", "Places known again put the map right; odometry is in odom then."),
    "imu_topic": ("", "sensor_msgs/Imu, for metres; empty: as in the parameter file."),
    "imu_calibration": ("", "YAML file of the IMU's place and noise; empty: likewise."),
    "frontend": ("true", "Also start d2_frontend; its own arguments are taken as well."),
    "use_sim_time": ("false", "Take the time from /clock."),
    "log_level": ("info", "debug, info, warn, error or fatal."),
}


def start_node(context):
    """Return the mapper."""
    value = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    given = {name: value[name] for name in ("imu_topic", "imu_calibration") if value[name]}
    given["use_sim_time"] = value["use_sim_time"].lower() == "true"
    given |= {name: True for name in ("stereo", "loops") if value[name].lower() == "true"}
    node = Node(
        package="d2_ros",
        executable="d2_mapper",
        name="d2_mapper",
        namespace=value["namespace"],
        parameters=[value["mapper_params_file"], given],
        remappings=[
            ("camera/camera_info", value["camera_info_topic"]),
            ("right/camera_info", value["right_camera_info_topic"]),
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
    frontend = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, "launch", "frontend.launch.py"])
        ),
        launch_arguments={"mapper": "false"}.items(),  # all others it sees as they are here
        condition=IfCondition(LaunchConfiguration("frontend")),
    )
    return LaunchDescription([*declared, OpaqueFunction(function=start_node), frontend])
