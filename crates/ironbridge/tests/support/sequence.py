"""Numbered UDP packets, to see which were lost, came twice or changed.

    sequence.py recv PORT             until nothing has come for a second after the first packet;
                                      prints "different twice ttl"
    sequence.py send ADDRESS PORT COUNT PER_SECOND
"""
import socket
import struct
import sys
import time

SO_RCVBUFFORCE = 33
IP_RECVTTL = 12


def recv(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    s.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    s.bind(("", port))
    seen, twice, ttls = set(), 0, set()
    s.settimeout(20)
    try:
        while True:
            data, control, _, _ = s.recvmsg(200, 200)
            s.settimeout(1)
            n, = struct.unpack("!I", data[:4])
            twice += n in seen
            seen.add(n)
            ttls.update(struct.unpack("i", value)[0] for _, _, value in control)
    except socket.timeout:
        pass
    print(len(seen), twice, ",".join(map(str, sorted(ttls))))


def send(address, port, count, rate):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((address, port))
    start = time.monotonic()
    for n in range(count):
        try:
            s.send(struct.pack("!I", n) + bytes(96))
        except ConnectionRefusedError:
            pass  # Nobody listens, which is the test's business.
        ahead = n / rate - (time.monotonic() - start)
        if ahead > 0.002:
            time.sleep(ahead)


if sys.argv[1] == "recv":
    recv(int(sys.argv[2]))
else:
    send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
