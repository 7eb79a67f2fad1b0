// Loaded before the server (`node --import`): at SIGUSR2 the event loop stands still for LATCHKEY_CHAOS_BLOCK_MS.
const milliseconds = Number(process.env.LATCHKEY_CHAOS_BLOCK_MS ?? 5_000);

process.on('SIGUSR2', () => {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
});
