"""Build d2_ros with pip or colcon; dependencies are explained in docs/architecture.md."""

import re
from pathlib import Path

from setuptools import find_packages, setup

NAME = "d2_ros"
HERE = Path(__file__).resolve().parent


def version() -> str:
    """Return `d2_ros.__version__`, the same as in package.xml."""
    text = (HERE / NAME / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def pins(name: str) -> list:
    """Return the exact versions listed in requirements/<name>.txt."""
    lines = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def files(folder: str, pattern: str) -> list:
    """Return the files of a folder that are installed under share/, relative to setup.py."""
    return sorted(str(path.relative_to(HERE)) for path in (HERE / folder).glob(pattern))


setup(
    name=NAME,
    version=version(),
    description="D2-Net features, tracked and refined to sub-pixel accuracy, for ROS 2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="d2_ros maintainers",
    maintainer_email="d2_ros@users.noreply.github.com",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={f"{NAME}.features": ["data/*"], f"{NAME}.places": ["data/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", files("launch", "*.launch.py")),
        (f"share/{NAME}/config", files("config", "*.*")),
        (f"share/{NAME}/hook", files("resource/hook", "*.dsv")),
    ],
    zip_safe=False,
    python_requires=">=3.10",
    # Lower bounds only, so that pip keeps the torch, numpy and OpenCV that a machine has.
    install_requires=[
        "evo>=1.21",
        "gtsam>=4.2",
        "lz4>=3.1",
        "matplotlib>=3.5",
        "mcap>=1.5",
        "numba>=0.57",
        "numpy>=1.21",
        "opencv-python-headless>=4.5,<5",
        "PyYAML>=5.4",
        "rich>=12.0",
        "rosbags>=0.11",
        "safetensors>=0.4",
        "scipy>=1.8",
        "torch>=2.2",
        "typer>=0.12",
        "zstandard>=0.15",
    ],
    extras_require={
        name: pins(name)
        for name in (
            "ros",
            "test",
            "train",
            "docs",
            "openvino",
            "onnxruntime",
            "mapping",
            "cluster",
            "view",
            "places",
        )
    },
    entry_points={
        "console_scripts": [
            "d2-ros = d2_ros.cli:main",
            "d2_frontend = d2_ros.node.frontend_node:main",
            "d2_mapper = d2_ros.node.mapper_node:main",
        ],
    },
)
