"""Several processes on one port: a supervisor starts workers, replaces the dead, the hung and the outdated.

The supervisor binds the sockets and reads the settings; it serves nobody. Each worker is a `predawn serve` of its own
with a socket of its own on the shared port (SO_REUSEPORT: the kernel spreads connections) and a stable admin port.

- **Sockets outlive workers.** The supervisor keeps a copy of each, so a connection that waits to be accepted while its
  worker dies or is replaced is accepted by the next one.
- **Settings come from the supervisor.** A worker that is started again gets those in force, whatever the file says by
  then. A reload is agreed on: it takes effect when every worker is ready for it, else nowhere.
- **A line joins the two**, a socket pair: sockets and settings come down, a sign of life goes up every second. When it
  ends, the other side is gone: workers then drain, and nobody is left behind.
"""
