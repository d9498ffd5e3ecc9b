from setuptools import setup

setup(package_dir={"qixai_fast.kernels": "kernels"})
