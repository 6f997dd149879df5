"""A tiny FTP server, and a client that fetches a file from it: `ftp.py serve ADDRESS` or `ftp.py fetch ADDRESS`."""

import ftplib
import socket
import sys
import threading

CONTENT = b"what the server has\r\n" * 500


def listen(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(10)
    return s


def session(control):
    control.settimeout(10)
    own = control.getsockname()[0]
    lines = control.makefile("rb")
    say = lambda text: control.sendall(text.encode() + b"\r\n")
    say("220 ready")
    passive, active = None, None
    for line in lines:
        word, _, rest = line.decode().strip().partition(" ")
        if word in ("PASV", "EPSV"):
            passive = listen(own)
            passive.bind((own, 0))
            passive.listen(1)
            port = passive.getsockname()[1]
            if word == "PASV":
                numbers = own.split(".") + [str(port >> 8), str(port & 255)]
                say("227 Entering Passive Mode (%s)." % ",".join(numbers))
            else:
                say("229 Entering Extended Passive Mode (|||%d|)" % port)
        elif word == "PORT":
            n = rest.split(",")
            active = (".".join(n[:4]), int(n[4]) * 256 + int(n[5]))
            say("200 ok")
        elif word == "EPRT":
            _, _, address, port, _ = rest.split(rest[0])
            active = (address, int(port))
            say("200 ok")
        elif word == "RETR":
            say("150 here it comes")
            data = passive.accept()[0] if passive else socket.create_connection(active, 5, (own, 0))
            data.sendall(CONTENT)
            data.close()
            passive, active = None, None
            say("226 done")
        elif word == "QUIT":
            say("221 bye")
            break
        else:
            say("230 ok" if word == "USER" else "200 ok")
    control.close()


def serve(address):
    s = listen(address)
    s.settimeout(60)
    s.bind((address, 21))
    s.listen(5)
    while True:
        threading.Thread(target=session, args=(s.accept()[0],), daemon=True).start()


def fetch(address):
    for passive in (True, False):
        ftp = ftplib.FTP()
        ftp.trust_server_pasv_ipv4_address = True
        ftp.connect(address, 21, timeout=5)
        ftp.login("anybody", "")
        ftp.set_pasv(passive)
        got = []
        ftp.retrbinary("RETR file", got.append)
        assert b"".join(got) == CONTENT, "%d bytes" % len(b"".join(got))
        ftp.quit()


{"serve": serve, "fetch": fetch}[sys.argv[1]](sys.argv[2])
