"""What somebody with a shell runs who wants the places of others: binds them in a loop, and keeps what it is sent."""

# For a program that has ``places`` and the empty ``won``, ``heard`` and ``tries``.
LOOP = """
while True:
    tries += 1
    for place in places:
        if place in won:
            try:
                taken = won[place].accept()[0]
                taken.settimeout(1)
                heard.append(taken.recv(65536).decode(errors="replace"))
                taken.close()
            except OSError:
                pass
            continue
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind(place)
            door.listen()
            door.setblocking(False)
            won[place] = door
        except OSError:
            door.close()
"""
