"""One module per subcommand; see `snf_lab.command`."""
