// Loaded before the server (`node --import`): at SIGUSR2 the heap is filled until the process ends for lack of memory.
const held = [];

process.on('SIGUSR2', () => {
  for (;;) held.push(Array.from({ length: 100_000 }, (_, index) => ({ index })));
});
