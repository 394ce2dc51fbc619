"""The SDK: typed calls over the HTTP API, decorators, run context. It knows the types and the kernel only."""
