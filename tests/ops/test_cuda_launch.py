"""How the host launches CUDA kernels, with headers that stand in for CUDA's."""

from __future__ import annotations

import ctypes
import subprocess

import emulation
import pytest

pytestmark = pytest.mark.skipif(emulation.compiler() is None, reason="there is no C++ compiler")
HEADERS = emulation.ROOT / "tests" / "support" / "cuda_host"
MOST = 227 * 1024  # bytes of shared memory that a block may have


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    library = tmp_path_factory.mktemp("host") / "launches.so"
    done = subprocess.run(
        [emulation.compiler(), "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fPIC",
         "-shared", "-pthread", "-I", emulation.ROOT / "csrc", "-I", HEADERS,
         HEADERS / "launches.cpp", "-o", library],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    loaded.launch_between.argtypes = (ctypes.c_bool, ctypes.c_int, ctypes.c_int)
    loaded.error_of_kernel.argtypes = (ctypes.c_bool,)
    for function in (loaded.launch_between, loaded.error_of_kernel, loaded.encode_first):
        function.restype = ctypes.c_char_p
    return loaded


@pytest.mark.parametrize("clusters", [False, True])
@pytest.mark.parametrize(
    ("shared", "others"), [(90, 60), (60, 90), (90, 90), (227, 49), (90, 1), (1, 90)]
)
def test_two_threads_launch_a_kernel_with_different_shared_memory(host, clusters, shared, others):
    """In KiB; the launch of the other thread lies between the two calls of this one."""
    assert host.launch_between(clusters, shared * 1024, others * 1024) == b""


@pytest.mark.parametrize("clusters", [False, True])
def test_a_launch_with_more_shared_memory_than_there_is_fails(host, clusters):
    """Shows that the test above would see it."""
    name = b"clusters" if clusters else b"blocks"
    assert host.launch_between(clusters, MOST + 1, MOST) == name + b": invalid argument"


def test_the_error_of_a_kernel_that_the_driver_refuses(host):
    assert host.error_of_kernel(True) == b"invalid argument"
    assert host.error_of_kernel(False) == b""


def test_a_tensor_map_is_encoded_as_the_first_work_of_a_thread(host):
    assert host.encode_first() == b""
