"""Metadata stands in setup.cfg; here stands what it cannot say: packages in three roots."""

from setuptools import find_packages, setup

ROOTS = {"kfcn": ".", "kfcn_tools": "tools", "kfcn_mobile": "mobile"}

setup(
    packages=[
        package
        for name, root in ROOTS.items()
        for package in find_packages(root, include=[name, f"{name}.*"])
    ],
    package_dir={name: f"{root}/{name}" for name, root in ROOTS.items()},
)
