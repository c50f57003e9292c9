"""Where the replicas of a run are: one device, all of this machine, or several machines.

A run has P workers (processes) with L replicas each, R = P*L in all. Each global batch is divided
over the R replicas; everything else a run needs to know of the others stands here.
"""

import faulthandler
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from kfcn.collectives import sum_over_replicas
from kfcn.data.feed.batches import Shares
from kfcn.errors import KfcnError, UsageError, WorkerLostError, counted, first_line, received
from kfcn.place import Marker
from kfcn.training.settings import STRATEGIES

CLUSTER_SECONDS = 300.0
"""How long to wait for the other workers at the start."""
_MOST_NODES = 100_000


class Replicas:
    """The strategy of a run, and this process' place in it.

    Attributes:
        strategy: of `tf.distribute`.
        worker: number of this process, 0 for the chief, who alone writes the run folder.
        workers: how many there are.
        marker: keeps for `kfcn-launch` at which step this process is.
    """

    def __init__(self, strategy: tf.distribute.Strategy, worker: int = 0, workers: int = 1):
        self.strategy, self.worker, self.workers = strategy, worker, workers
        self.marker = Marker()
        self._over_all = tf.function(self._over_workers)

    @property
    def total(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def here(self) -> int:
        return self.total // self.workers

    @property
    def chief(self) -> bool:
        return self.worker == 0

    @property
    def shares(self) -> Shares:
        """The parts of each batch that this process reads."""
        return Shares(self.total, self.here, self.worker * self.here)

    def __str__(self):
        if self.total == 1:
            return "one replica"
        return f"{self.total} replicas on {counted(self.workers, 'worker')}"

    def sum(self, value: ArrayLike) -> np.ndarray:
        """The sum of an array over the workers; each of them must call it. Also a barrier."""
        value = np.asarray(value)
        if self.workers == 1:
            return value
        with self.guard():
            result = self._over_all(tf.constant(value))
            return self.strategy.experimental_local_results(result)[0].numpy()

    def _over_workers(self, mine):
        def sum_of_workers():
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group % self.here, 0)
            return sum_over_replicas(mine * tf.cast(first, mine.dtype))  # one for each worker

        return self.strategy.run(sum_of_workers)

    def guard(self) -> "_Guard":
        """A context in which TensorFlow's error about a lost worker becomes a WorkerLostError."""
        return _Guard(self.workers > 1)


class _Guard:
    _LOST = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
    )

    def __init__(self, watch: bool):
        self.watch = watch

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.watch and isinstance(error, self._LOST):
            raise WorkerLostError(
                "another worker was lost; start all of them again to continue from the checkpoint"
            ) from error


def start(name: str = "auto", cpu_replicas: int = 0) -> Replicas:
    """Makes the strategy of a run; before anything else is asked of TensorFlow.

    Args:
        name: "one" device; "mirrored" over all visible GPUs; "multiworker" for the cluster that
            `TF_CONFIG` or Slurm describes; "auto" for the last where there is a cluster, the
            second where there are several GPUs, else the first.
        cpu_replicas: make this many logical CPU devices and mirror over them, to try everything
            without a GPU; 0 for none.

    Raises:
        UsageError: an unknown name, no cluster or a wrong one, too late for logical devices.
        KfcnError: the workers did not find each other.
    """
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r}: expected one of {', '.join(STRATEGIES)}")
    if cpu_replicas < 0:
        raise UsageError(f"cpu_replicas {cpu_replicas}: expected 0 or more")
    if cpu_replicas and name in ("one", "multiworker"):
        raise UsageError(f"cpu_replicas are for the strategy mirrored; received {name}")
    if name == "auto" and cpu_replicas:
        name = "mirrored"
    cluster = _cluster() if name in ("auto", "multiworker") else None
    if cluster:
        return _multiworker(*cluster)
    if name == "multiworker":
        raise UsageError(
            "strategy multiworker needs a cluster; start the workers with kfcn-launch or srun, "
            "or set TF_CONFIG"
        )
    if cpu_replicas:
        devices = _logical_cpus(cpu_replicas)
    else:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
        if name == "auto" and len(devices) < 2:
            name = "one"
    if name == "one":
        return Replicas(tf.distribute.get_strategy())
    if not devices:
        raise UsageError("strategy mirrored found no GPU; give --cpu-replicas N to try it on CPU")
    return Replicas(tf.distribute.MirroredStrategy(devices))


def _logical_cpus(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    wanted = [tf.config.LogicalDeviceConfiguration()] * count
    if len(tf.config.get_logical_device_configuration(cpu) or []) != count:
        try:
            tf.config.set_logical_device_configuration(cpu, wanted)
        except RuntimeError as error:
            raise UsageError(
                "cpu_replicas must be set before TensorFlow computes anything; use a new process"
            ) from error
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _cluster() -> tuple[tf.distribute.cluster_resolver.ClusterResolver, int, list[str]] | None:
    """The resolver, this process' number and all addresses; None where there are not several."""
    if os.environ.get("TF_CONFIG"):
        worker, addresses = read_tf_config(os.environ["TF_CONFIG"])
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif _slurm_tasks() > 1 and "SLURM_PROCID" in os.environ:
        resolver, worker, addresses = _slurm()
    else:
        return None
    return (resolver, worker, addresses) if len(addresses) > 1 else None


def _slurm_tasks() -> int:
    text = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise UsageError(
            f"SLURM_STEP_NUM_TASKS={received(text)}: expected the number of tasks of the step"
        )
    return int(text)


def _slurm():
    # Without a GPU the resolver divides by none; then each task has its own imagined one.
    on_cpu = {"auto_set_gpu": False, "gpus_per_node": 1 << 10, "gpus_per_task": 1}
    options = {} if shutil.which("nvidia-smi") else on_cpu
    for name in ("SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE"):
        text = os.environ.get(name, "")
        for first, last, times in re.findall(r"(\d+)-(\d+)|x(\d+)", text):
            count = times or last  # a number of many digits is none that int() would read
            if len(count) > 9 or int(count) - int(first or 0) > _MOST_NODES:  # the memory is full
                raise UsageError(f"{name}={received(text)}: expected up to {_MOST_NODES} nodes")
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**options)
        addresses = resolver.cluster_spec().job_tasks("worker")
        if not 0 <= resolver.task_id < len(addresses):
            raise ValueError(f"task {resolver.task_id} of {len(addresses)}")
        return resolver, resolver.task_id, addresses
    except Exception as error:  # of a missing variable a KeyError, of a malformed one anything
        what = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise UsageError(f"Slurm's variables give no cluster: {what}") from error


def read_tf_config(text: str) -> tuple[int, list[str]]:
    """This process' number and the addresses of all workers, the chief first.

    Raises:
        UsageError: the text is no cluster of workers; the message says what is wrong with it.
    """
    hint = (
        'expected {"cluster": {"worker": ["host:port", ...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        cluster = config["cluster"]
        if not isinstance(cluster, dict):
            raise TypeError("a cluster that names no jobs")
        jobs = dict(cluster)
        kind, index = config["task"]["type"], config["task"]["index"]
        if not all(isinstance(addresses, list) for addresses in jobs.values()):
            raise TypeError("a job that is not a list of addresses")
        if not isinstance(kind, str) or not re.fullmatch(r"-?\d{1,9}", str(index)):
            raise TypeError(f"a task of the type {received(kind)} and the index {received(index)}")
        index = int(index)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise UsageError(f"TF_CONFIG is wrong: {what}; {hint}") from error
    unknown = sorted({*jobs, kind} - {"chief", "worker"})
    if unknown:
        raise UsageError(
            f"TF_CONFIG has the job {received(unknown[0])}; expected chief and worker only"
        )
    if not 0 <= index < len(jobs.get(kind, [])):
        raise UsageError(
            f"TF_CONFIG names task {received(kind)} {index}, but its cluster has "
            f"{len(jobs.get(kind, []))} of that kind"
        )
    addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdigit() or addresses.count(address) > 1:
            what = "twice" if addresses.count(address) > 1 else "as an address"
            raise UsageError(
                f"TF_CONFIG has {received(address)} {what}; expected different host:port"
            )
    return index + (len(jobs.get("chief", [])) if kind == "worker" else 0), addresses


def _multiworker(resolver, worker: int, addresses: list[str]) -> Replicas:
    others = ", ".join(a for i, a in enumerate(addresses) if i != worker)
    print(
        f"worker {worker} ({addresses[worker]}) waits for {others} (ends in "
        f"{CLUSTER_SECONDS:.0f} s if they do not come)",
        flush=True,
    )
    # TensorFlow waits for an hour and holds Python's lock meanwhile: no thread of ours could end
    # it, but the watchdog of faulthandler does (exit code 1).
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        faulthandler.dump_traceback_later(CLUSTER_SECONDS, exit=True, file=nowhere)
        try:
            # No time limit for its collectives: see `kfcn.collectives`.
            strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
        except RuntimeError as error:
            raise UsageError(
                "a cluster must be joined before TensorFlow computes anything; use a new process "
                f"({first_line(error)})"
            ) from error
        except tf.errors.OpError as error:
            raise KfcnError(
                f"worker {worker} could not join the cluster as {addresses[worker]}: "
                f"{first_line(error)}; check that the address is this machine's and the port free"
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()
    return Replicas(strategy, worker, len(addresses))
