#!/usr/bin/env python3
"""Measures the speed, the memory use and the output of the interface in the demo.

Starts the release binary in a pseudo-terminal (80x24) several times. Prints the time from exec to the first frame, the
number of bytes in the first frames, the time from a key press to the next frame, the peak memory, the number of bytes
and the processor time in ten idle seconds, and the size of the binary.
Usage: cargo build --release && benches/interface.py
"""
import fcntl, os, pty, select, statistics, struct, termios, time

BINARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../target/release/cfdfu")
RUNS = 9


def start():
    """Starts the binary in a pseudo-terminal. The child calls exec only after the clock has started.

    Returns the process ID, the terminal, the time until the first frame, and the number of bytes received by then.
    """
    read_end, write_end = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        os.read(read_end, 1)
        environment = dict(os.environ, TERM="xterm-256color", LC_ALL="C.UTF-8")
        os.execve(BINARY, ["cfdfu", "--demo"], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    started = time.perf_counter()
    os.write(write_end, b"x")
    seen = b""
    while b"What would you like" not in seen:
        seen += os.read(terminal, 65536)
    return pid, terminal, time.perf_counter() - started, len(seen)


def drain(terminal, seconds):
    """Reads the output of the terminal for this many seconds and returns the number of bytes."""
    count, end = 0, time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        if select.select([terminal], [], [], left)[0]:
            count += len(os.read(terminal, 65536))
    return count


def press_key(terminal, byte):
    """Presses a key and returns the time until the next output."""
    started = time.perf_counter()
    os.write(terminal, byte)
    os.read(terminal, 65536)
    return time.perf_counter() - started


def processor_ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()
    return int(fields[11]) + int(fields[12])


def peak_memory_kib(pid):
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))


def main():
    frames, sizes, keys, memory = [], [], [], []
    for run in range(RUNS):
        pid, terminal, first, size = start()
        size += drain(terminal, 0.4)
        for byte in b"jkjkjk":
            keys.append(press_key(terminal, bytes([byte])))
            drain(terminal, 0.05)
        if run == 0:
            before = processor_ticks(pid)
            print(f"idle for 10 s:   {drain(terminal, 10)} bytes, {processor_ticks(pid) - before} ticks of 10 ms")
        frames.append(first), sizes.append(size), memory.append(peak_memory_kib(pid))
        os.write(terminal, b"q")
        try:
            while os.read(terminal, 65536):
                pass
        except OSError:
            pass
        os.waitpid(pid, 0)
    in_milliseconds = lambda values: f"{statistics.median(values) * 1000:.1f} ms (worst {max(values) * 1000:.1f})"
    print(f"exec to frame:   {in_milliseconds(frames)}")
    print(f"first frames:    {max(sizes)} bytes")
    print(f"key to frame:    {in_milliseconds(keys)}")
    print(f"peak memory:     {max(memory) / 1024:.1f} MiB")
    print(f"binary:          {os.path.getsize(BINARY) / 1e6:.1f} MB")


main()
