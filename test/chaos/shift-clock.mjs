// Loaded before the server (`node --import`) where libfaketime is not at hand: the calendar clock is as far off as the
// file LATCHKEY_CHAOS_CLOCK says, such as +7200. The monotonic clock and timers stay as they are.
import { readFileSync } from 'node:fs';

const Real = Date;
let offsetMs = 0;
const look = () => {
  offsetMs = Number(readFileSync(process.env.LATCHKEY_CHAOS_CLOCK, 'utf8')) * 1_000;
};
look();
setInterval(look, 200).unref();

globalThis.Date = class Date extends Real {
  constructor(...given) {
    if (given.length === 0) super(Real.now() + offsetMs);
    else super(...given);
  }
  static now() {
    return Real.now() + offsetMs;
  }
};
