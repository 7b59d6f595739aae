"""A process that asks a web server for an answer, whatever it is. Looking up a name may take longer than any limit that
a library knows: whoever waits for this process ends it."""

import http.client
import json
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any


def probe_server(url: str) -> dict[str, Any]:
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
