// Loaded before the server (`node --expose-gc --import`): at SIGUSR2 what nobody holds is let go of.
process.on('SIGUSR2', () => globalThis.gc());
