// npm start: the server runs in this very process, so that signals reach it and its exit code is the one seen.
import { setup } from './setup.mjs';

await setup({ build: true });
await import('../dist/main.js');
