"""A dependency, vendored so that no step has to run to install it."""


def greet(name: str) -> str:
    return f"hello from a {name}"
