"""Other libraries' APIs over Tenure's drivers, for programs that call those today."""
