"""PLAN: budgets, allocation, plans."""
