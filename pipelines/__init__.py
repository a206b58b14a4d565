"""What people run: the command line and the stages around the RL loop."""
