"""`diffusion launch`: run a command on rented machines, a cluster or here."""

from launch import cli

main = cli.main
