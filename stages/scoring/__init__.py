"""How a predicted mask is scored and pictured."""
