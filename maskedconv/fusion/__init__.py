"""Models of any origin that keep less for backward, because they compute more again."""
