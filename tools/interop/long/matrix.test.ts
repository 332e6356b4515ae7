/** The whole matrix: cluster size × version × width of refcounts × plain or compressed × what lies below. */
import { matrixSuite } from "../test/matrix-suite.js";

matrixSuite(() => true);
