// npm run audit:verify -- [--tenant ID] [--heads FILE] [--json]
import { setup } from './setup.mjs';

await setup({ build: true });
await import('../dist/verify-audit.js');
