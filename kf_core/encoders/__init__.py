"""What turns sound and text into features: log-mel, wav2vec 2.0, UMT5."""
