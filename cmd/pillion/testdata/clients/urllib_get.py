"""A connector on urllib: prints what the tool answers."""
import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=30) as response:
    print(response.read().decode(), end="")
