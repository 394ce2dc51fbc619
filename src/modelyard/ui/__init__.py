"""The UI: server-rendered pages over the planes. It presents and decides nothing."""
