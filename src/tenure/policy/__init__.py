"""How a driver earns its level: manifests, evidence, requirements and what follows from them."""
