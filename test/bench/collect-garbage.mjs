// Loaded into a server that is measured, with --expose-gc: what is left is then what is held.
process.on('SIGUSR2', () => globalThis.gc());
