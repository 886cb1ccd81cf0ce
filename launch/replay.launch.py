"""Start d2_frontend and play a bag to it, every frame; takes frontend.launch.py's arguments too.

The bag may be any source that `d2-ros play` takes. The node goes on when the bag has ended, for
it may have frames to work off.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare


def play_bag(context):
    """Return the publishing process; it publishes on /camera once the node has subscribed."""
    image_topic = LaunchConfiguration("image_topic").perform(context)
    play = ExecuteProcess(
        cmd=[
            ExecutableInPackage("d2-ros", "d2_ros"),
            "play",
            LaunchConfiguration("bag"),
            "--rate",
            LaunchConfiguration("rate"),
            "--wait-for-subscribers",
            *(["--image-topic", image_topic] if image_topic else []),
        ],
        output="screen",
    )
    return [play]


def generate_launch_description():
    """Declare the arguments, include the node's launch file and start publishing."""
    frontend = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("d2_ros"), "launch", "frontend.launch.py"])
        ),
        launch_arguments={
            "image_topic": "/camera/image_raw",
            "camera_info_topic": "/camera/camera_info",
            "qos": "replay",
            "use_sim_time": LaunchConfiguration("use_sim_time"),
        }.items(),
    )
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="Bag, dataset folder or video."),
            DeclareLaunchArgument("rate", default_value="1.0", description="Speed of playing."),
            DeclareLaunchArgument(
                "image_topic", default_value="", description="The bag's topic, if it has several."
            ),
            DeclareLaunchArgument(
                "use_sim_time", default_value="true", description="Take the time from /clock."
            ),
            OpaqueFunction(function=play_bag),  # before the include, which sets image_topic anew
            frontend,
        ]
    )
