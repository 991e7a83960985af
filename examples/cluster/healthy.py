"""`healthy.py URL TOKEN_FILE`: exit status 0 when the service at URL says that it is well. For health checks of containers."""

import sys
from pathlib import Path
from urllib.request import Request, urlopen

url, token_file = sys.argv[1:]
token = Path(token_file).read_text(encoding="utf-8").strip()
try:
    with urlopen(Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=8) as answer:
        print(answer.read().decode())
except OSError as error:  # no answer, or one that is not 2xx
    sys.exit(f"{url}: {error}")
