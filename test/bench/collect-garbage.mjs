// Loaded into a server that is measured: what is left after a collection is then what is held. Node takes no --expose-gc
// from NODE_OPTIONS, so the flag is set here.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');
process.on('SIGUSR2', () => collect());
