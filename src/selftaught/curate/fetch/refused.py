"""Why an image is not had."""


class Refused(Exception):
    """An image that is not had, for the reason that the message gives.

    Args:
        reason: in words, the same whenever it happens.
        transient: whether it may be had later.
        status: of HTTP, where there was an answer.
        wait: seconds after which the server wants to be asked again.
    """

    def __init__(
        self, reason: str, transient: bool = False, status: int | None = None, wait: float = 0.0
    ):
        super().__init__(reason)
        self.reason, self.transient, self.status, self.wait = reason, transient, status, wait
        self.url = ""
        """Of the last request, after redirects."""
