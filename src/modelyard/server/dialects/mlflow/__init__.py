"""MLflow's REST API over our planes. It translates, and decides nothing."""
