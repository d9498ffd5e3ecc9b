"""Where each tool stands on the plane of cost and error, silent failures included."""
