"""Sphinx: ``sphinx-build -W --keep-going -c docs/sphinx . OUT``.

The source folder is the repository, so that README.md, CONTRIBUTING.md and docs/ link to the same
files and headings here as on GitHub. A broken link is a warning, and with -W an error.
"""

from d2_ros import __version__

project = "d2_ros"
author = copyright = "d2_ros contributors"
release = __version__
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.rst", "docs/**"]
extensions = ["myst_parser", "sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"

myst_heading_anchors = 4

# What a program of one's own would import. The other rooms are used through topics or commands, and
# without them the pages need no ROS and take half the time.
INSIDE = ("node", "commands", "cli.py", "config_text.py", "benchmark", "evaluation", "training")
apidoc_modules = [
    {
        "path": "../../d2_ros",
        "destination": "docs/api",
        "exclude_patterns": [f"../../d2_ros/{name}" for name in INSIDE],
    }
]
apidoc_automodule_options = {"members"}  # those that have a docstring
autodoc_default_options = {"ignore-module-all": True}  # an object's page is its own module's
autodoc_member_order = "bysource"
autodoc_use_type_comments = False  # there are none, and looking for them takes a while
napoleon_use_ivar = True
napoleon_use_rtype = False  # what "Returns" names are values, not types
