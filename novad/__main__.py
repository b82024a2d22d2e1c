from novad.cli import main

main()
