"""A Ray cluster: its nodes, a specification divided into parts for them, and a fit on several of them."""
