"""What more than one stage needs; imports no stage."""
