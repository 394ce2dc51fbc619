"""Will a flight from New York arrive more than 15 minutes late? Known at its scheduled departure, and nothing later."""
