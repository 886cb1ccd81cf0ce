"""Where frames come from: bags, dataset folders, videos and the synthetic sequence."""
