"""A process that asks a web server for any answer.

A DNS look-up may take longer than any timeout of a library: the parent kills this process when its time is over.
"""

import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any


def probe_server(url: str) -> dict[str, Any]:
    """{"error": None} if the server answers anything, else why it does not."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60).close()
    except (urllib.error.HTTPError, http.client.HTTPException):
        pass  # it has answered
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return {"error": f"its certificate is not trusted ({reason.verify_message})"}
        return {"error": getattr(reason, "strerror", None) or type(reason).__name__}
    return {"error": None}


if __name__ == "__main__":
    print(json.dumps(probe_server(sys.argv[1])))
