#!/usr/bin/env node
import "../dist/bundle/blk.js";
