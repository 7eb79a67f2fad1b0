// npm run demo
import { setup } from './setup.mjs';

await setup({ build: true });
await import('../dist/client/demo.js');
