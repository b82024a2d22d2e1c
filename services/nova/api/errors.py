"""EC2's errors: a code that clients branch on, a message for people, and the HTTP status.

Source: "Error codes for the Amazon EC2 API". Nearly all are the client's and have status 400.
"""

from __future__ import annotations

STATUS = {
    "AuthFailure": 401,
    "SignatureDoesNotMatch": 403,
    "RequestExpired": 400,
    "DryRunOperation": 412,
    "UnauthorizedOperation": 403,
    "InternalError": 500,
    "InsufficientAddressCapacity": 500,
    "ServiceUnavailable": 503,
}


class Ec2Error(Exception):
    """What the client is told."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUS.get(code, 400)


def missing(name: str) -> Ec2Error:
    return Ec2Error("MissingParameter", f"the request must contain the parameter {name}")


def invalid(name: str, value: object, expected: str) -> Ec2Error:
    return Ec2Error("InvalidParameterValue", f"{name}: expected {expected}, not {str(value)[:80]!r}")
